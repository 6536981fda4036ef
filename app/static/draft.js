// The text on the page, so that a reload does not lose it. It is in the session storage, which ends with the tab; the
// local storage would leave the text to the next user of the browser.

const NAME = "tolk.draft";

// Keeps a text instead of the one before. An empty text leaves nothing behind.
export function keep(text) {
  try {
    sessionStorage.removeItem(NAME); // also when the new text is too long to be kept
    if (text) sessionStorage.setItem(NAME, text);
  } catch {
    // The browser does not allow storage, or has no room for the text. A reload will lose it.
  }
}

// Returns the text that was kept last, or an empty one.
export function kept() {
  try {
    return sessionStorage.getItem(NAME) ?? "";
  } catch {
    return "";
  }
}
