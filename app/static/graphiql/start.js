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
  React.createElement(GraphiQL, { fetcher, defaultQuery }),
);
