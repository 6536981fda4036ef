// Downloads a file that needs the API key, which a link cannot send.

import { RequestError } from "./graphql.js";
import { authorization } from "./key.js";

// Handles a click on a link to a file. Without a key the browser does it, and writes the file while it comes; with one
// the page fetches the file first. Throws RequestError.
export async function save(event) {
  const headers = authorization();
  if (!headers.Authorization) return;
  const link = event.currentTarget;
  event.preventDefault();
  let response;
  try {
    response = await fetch(link.href, { headers });
    if (!response.ok) throw await refusal(response);
    const file = Object.assign(document.createElement("a"), {
      href: URL.createObjectURL(await response.blob()),
      download: nameOf(response) ?? "translations",
    });
    file.click();
    setTimeout(() => URL.revokeObjectURL(file.href), 60_000);
  } catch (error) {
    if (error instanceof RequestError) throw error;
    throw new RequestError("The service cannot be reached, or the download broke off.", { code: "UNREACHABLE" });
  }
}

function nameOf(response) {
  return response.headers.get("Content-Disposition")?.match(/filename="([^"]+)"/)?.[1];
}

async function refusal(response) {
  const answer = await response.json().catch(() => null);
  const [error] = answer?.errors ?? [];
  const message = error?.message ?? `The service did not answer as it should (HTTP status ${response.status}).`;
  return new RequestError(message, error?.extensions ?? {});
}
