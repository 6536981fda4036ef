// Sends requests to the API, and turns every failure into a RequestError.

import { authorization } from "./key.js";

const CODES = { 429: "RATE_LIMITED", 502: "UNAVAILABLE", 503: "UNAVAILABLE", 504: "UNAVAILABLE" }; // from a proxy
const UNREADABLE =
  "The page does not understand the answer of the service. Reload the page; if that does not help, tell the operator.";

export const LONGEST_WAIT = 300_000; // milliseconds: a page repeats a request automatically after no more than these

export class RequestError extends Error {
  // `code` is one of the API's, or UNREACHABLE; `retryAfter` is the seconds after which to try again, if that makes
  // sense.
  constructor(message, { code = "INTERNAL", retryAfter, requestId } = {}) {
    super(message);
    Object.assign(this, { code, retryAfter, requestId });
  }
}

// Returns what `read` makes of the answer's `data`; an answer that it fails to read is a RequestError too. `patience`:
// the milliseconds that the answer may take. Throws RequestError, and what fetch throws once `signal` has aborted.
export async function ask(query, variables, { patience, signal }, read) {
  const request = new AbortController();
  const abort = () => request.abort(); // many browsers do not know AbortSignal.any
  let late = false;
  let response;
  let answer;
  const timer = setTimeout(() => {
    late = true;
    abort();
  }, patience);
  signal?.addEventListener("abort", abort);
  try {
    if (signal?.aborted) abort();
    response = await post(query, variables, request.signal);
    answer = await response.json();
  } catch (error) {
    if (signal?.aborted) throw error;
    if (late) throw new RequestError("The service does not answer.", { code: "TIMEOUT" });
    if (!response) throw new RequestError("The service cannot be reached.", { code: "UNREACHABLE" });
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
  }
  try {
    if (answer?.errors?.length) throw refusal(answer.errors[0]);
    if (!answer?.data) throw incomplete(response);
    return read(answer.data);
  } catch (error) {
    if (error instanceof RequestError) throw error;
    console.info(error);
    throw new RequestError(UNREADABLE, { requestId: response.headers.get("X-Request-Id") });
  }
}

// Sends a document to the API. Returns its response, or throws as fetch does.
export function post(query, variables, signal, headers = {}) {
  return fetch(document.body.dataset.endpoint, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...authorization(), ...headers },
    body: JSON.stringify({ query, variables }),
    signal,
  });
}

function refusal({ message, extensions }) {
  if (typeof message !== "string") throw new TypeError("An error has no message.");
  return new RequestError(message, extensions ?? {});
}

// The answer is a proxy's page, or only a part of one.
function incomplete({ ok, status, headers }) {
  return new RequestError(`The service did not answer as it should (HTTP status ${status}).`, {
    code: ok ? "UNAVAILABLE" : (CODES[status] ?? "INTERNAL"),
    retryAfter: Number(headers.get("Retry-After")) || undefined, // NaN for a date
  });
}
