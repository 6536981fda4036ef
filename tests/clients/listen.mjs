// Prints what the client graphql-sse hears of a job, a result a line, and `complete` at the end:
//     node listen.mjs URL JOB [KEY]
import { createClient } from "graphql-sse";

const [url, id, key] = process.argv.slice(2);
const query = "subscription ($id: ID!) { jobUpdated(id: $id) { status } }";
const headers = key ? { Authorization: `Bearer ${key}` } : {};
const client = createClient({ url: `${url}/graphql`, headers, retryAttempts: 5 });
for await (const result of client.iterate({ query, variables: { id } })) console.log(JSON.stringify(result));
console.log("complete");
