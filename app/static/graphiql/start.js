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
  // Its history holds the headers of each request, an API key among them: it ends with the tab, as the pages' key does.
  React.createElement(GraphiQL, { fetcher, defaultQuery, storage: sessionStorage, shouldPersistHeaders: true }),
);
