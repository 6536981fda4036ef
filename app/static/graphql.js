// Sends requests to the API, and turns every failure into a RequestError.

import { authorization } from "./key.js";

const CODES = { 429: "RATE_LIMITED", 502: "UNAVAILABLE", 503: "UNAVAILABLE", 504: "UNAVAILABLE" }; // from a proxy

export const LONGEST_WAIT = 300_000; // milliseconds: a page repeats a request automatically after no more than these

export class RequestError extends Error {
  // `code` is one of the API's, or UNREACHABLE; `retryAfter` is the seconds after which to try again, if that makes
  // sense.
  constructor(message, { code = "INTERNAL", retryAfter, requestId } = {}) {
    super(message);
    Object.assign(this, { code, retryAfter, requestId });
  }
}

// Returns the answer's `data`. Throws RequestError, and what fetch throws once `signal` has aborted.
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
    // The answer is a proxy's page, or incomplete.
    const { ok, status, headers } = response;
    throw new RequestError(`The service did not answer as it should (HTTP status ${status}).`, {
      code: ok ? "UNAVAILABLE" : (CODES[status] ?? "INTERNAL"),
      retryAfter: Number(headers.get("Retry-After")) || undefined, // NaN for a date
    });
  }
  return answer.data;
}
