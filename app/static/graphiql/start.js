"use strict";

const fetcher = GraphiQL.createFetcher({ url: document.currentScript.dataset.endpoint });

const defaultQuery = `mutation {
  translate(input: {texts: ["Je vais dormir."], target: "en"}) {
    requestId
    model
    version
    translations {
      text
      score
      flags
      error {
        code
        message
      }
    }
  }
}
`;

ReactDOM.createRoot(document.getElementById("graphiql")).render(
  // GraphiQL's history has the headers of each request, including the API key, so it ends with the tab, as the key
  // does.
  React.createElement(GraphiQL, { fetcher, defaultQuery, storage: sessionStorage, shouldPersistHeaders: true }),
);
