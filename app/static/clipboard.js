// Copies a text, and returns whether the browser did so. `element` shows the text.

export async function copyText(text, element) {
  if (!navigator.clipboard) {
    // Browsers offer the clipboard only to pages over HTTPS or from this machine. Other pages use the older way.
    getSelection().selectAllChildren(element);
    return document.execCommand?.("copy") ?? false;
  }
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}
