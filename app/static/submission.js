// Submits lines as a job, in as many calls as they need.

import { ask } from "./graphql.js";

const SUBMIT = "mutation Submit($input: SubmitInput!) { submitTranslation(input: $input) { id } }";
const APPEND = `mutation Append($jobId: ID!, $offset: Int!, $texts: [String!]!) {
  appendTexts(jobId: $jobId, offset: $offset, texts: $texts) { id }
}`;
const START = "mutation Start($jobId: ID!) { startJob(jobId: $jobId) { id } }";
const CANCEL = "mutation Cancel($id: ID!) { cancelJob(id: $id) { id } }";
const TEXTS = 2_000; // in a call
const BYTES = 2_000_000; // of the texts in a call, as JSON; the service takes 4 MB
const PATIENCE = 60_000; // milliseconds that a call may take
const ATTEMPTS = 3; // at each call: the same call once more changes nothing
const TRANSIENT = ["OVERLOADED", "UNAVAILABLE", "TIMEOUT", "UNREACHABLE"];

// The lines of a text. What ends the last one begins no other.
export function linesOf(text) {
  const lines = text.split(/\r\n|\n|\r/);
  if (lines.at(-1) === "") lines.pop();
  return lines;
}

// Makes a job of the lines and returns its id. `languages`: the `target`, and the `source` unless it is detected.
// `tell` is told how many lines were sent. Throws RequestError; what was sent is cancelled then.
export async function submit(lines, languages, tell) {
  const calls = divide(lines);
  const open = calls.length > 1;
  const input = { texts: calls[0], ...languages, open, idempotencyKey: randomKey() };
  const id = await insist(SUBMIT, { input }, (data) => idOf(data.submitTranslation));
  if (!open) return id;
  try {
    let offset = calls[0].length;
    for (const texts of calls.slice(1)) {
      tell(offset);
      await insist(APPEND, { jobId: id, offset, texts }, (data) => idOf(data.appendTexts));
      offset += texts.length;
    }
    return await insist(START, { jobId: id }, (data) => idOf(data.startJob));
  } catch (error) {
    insist(CANCEL, { id }, () => null).catch(() => null); // the job ends at its deadline otherwise
    throw error;
  }
}

function idOf({ id }) {
  if (typeof id !== "string") throw new TypeError("A job has no id.");
  return id;
}

function divide(lines) {
  const encoder = new TextEncoder();
  const calls = [];
  let bytes = Infinity;
  for (const line of lines) {
    const more = encoder.encode(JSON.stringify(line)).length + 1;
    if (bytes + more > BYTES || calls.at(-1).length === TEXTS) {
      calls.push([]);
      bytes = 0;
    }
    calls.at(-1).push(line);
    bytes += more;
  }
  return calls;
}

// Asks again, a second later, what failed for a passing reason.
async function insist(query, variables, read) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await ask(query, variables, { patience: PATIENCE }, read);
    } catch (error) {
      if (attempt === ATTEMPTS || !TRANSIENT.includes(error.code)) throw error;
      await new Promise((resolve) => setTimeout(resolve, (error.retryAfter ?? 1) * 1000));
    }
  }
}

// crypto.randomUUID is offered only to pages over HTTPS or from this machine.
function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
