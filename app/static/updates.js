// Listens to the updates of a few jobs, each over a stream of its own.

import { LONGEST_WAIT } from "./graphql.js";
import { subscribe } from "./subscription.js";

const REPEAT = 2_000; // milliseconds until streams are opened again after one has broken; the double each time

const streams = new Map(); // what can be aborted, and whether it has told anything: by the job's id
let broken = 0; // streams in a row
let due = 0; // when the next stream may be opened: a time in milliseconds

// Whether the updates of a job come by a stream now.
export function stands(id) {
  return Boolean(streams.get(id)?.stands);
}

// Listens to these jobs and to no others, by `query`. Calls `told` with a job when it has changed, and `ended` when its
// stream is at an end: because the job is, or because the stream broke.
export function follow(ids, query, told, ended) {
  for (const [id, { request }] of streams) {
    if (ids.includes(id)) continue;
    streams.delete(id);
    request.abort();
  }
  if (Date.now() < due) return;
  for (const id of ids) if (!streams.has(id)) open(id, query, told, ended);
}

async function open(id, query, told, ended) {
  const stream = { request: new AbortController(), stands: false };
  const isWanted = () => streams.get(id) === stream;
  streams.set(id, stream);
  try {
    await subscribe(query, { id }, stream.request, ({ jobUpdated }) => {
      if (!isWanted()) return;
      stream.stands = true;
      broken = 0;
      told(jobUpdated);
    });
  } catch (error) {
    if (!isWanted()) return;
    console.info(error);
    broken += 1;
    due = Date.now() + Math.min(REPEAT * 2 ** broken, LONGEST_WAIT);
  }
  if (!isWanted()) return;
  streams.delete(id);
  ended();
}
