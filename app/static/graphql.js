// Asks the API, and turns whatever goes wrong into one kind of error.

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
      headers: { "Content-Type": "application/json" },
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
    const away = response.ok || [502, 503, 504].includes(response.status);
    throw new RequestError(`The service did not answer as it should (HTTP status ${response.status}).`, {
      code: away ? "UNAVAILABLE" : "INTERNAL",
    });
  }
  return answer.data;
}
