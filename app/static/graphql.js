// Asks the API, and turns whatever goes wrong into one kind of error.

import { authorization } from "./key.js";

const CODES = { 429: "RATE_LIMITED", 502: "UNAVAILABLE", 503: "UNAVAILABLE", 504: "UNAVAILABLE" }; // a proxy's

export const LONGEST_WAIT = 300_000; // milliseconds after which a page still asks again by itself

export class RequestError extends Error {
  // `code` is one of the API's, or UNREACHABLE; `retryAfter` is in seconds, where another try makes sense by itself.
  constructor(message, { code = "INTERNAL", retryAfter, requestId } = {}) {
    super(message);
    Object.assign(this, { code, retryAfter, requestId });
  }
}

// The answer's `data`. Throws RequestError, and what fetch throws once `signal` has aborted.
export async function ask(query, variables, signal) {
  let response;
  let answer;
  try {
    response = await fetch(document.body.dataset.endpoint, {
      method: "POST",
      headers: { "Content-Type": "application/json", ...authorization() },
      body: JSON.stringify({ query, variables }),
      signal,
    });
    answer = await response.json();
  } catch (error) {
    if (error.name === "TimeoutError") throw new RequestError("The service does not answer.", { code: "TIMEOUT" });
    if (signal.aborted) throw error;
    if (!response) throw new RequestError("The service cannot be reached.", { code: "UNREACHABLE" });
  }
  if (answer?.errors?.length) throw new RequestError(answer.errors[0].message, answer.errors[0].extensions);
  if (!answer?.data) {
    // A page of a proxy's, or an answer that broke off.
    const { ok, status, headers } = response;
    throw new RequestError(`The service did not answer as it should (HTTP status ${status}).`, {
      code: ok ? "UNAVAILABLE" : (CODES[status] ?? "INTERNAL"),
      retryAfter: Number(headers.get("Retry-After")) || undefined, // not where it is a date
    });
  }
  return answer.data;
}
