// The field of the text.

const [text, length] = ["text", "length"].map((id) => document.getElementById(id));

let composing = false;

// Whether an input method composes a word, which is not to be translated half.
export function isComposing() {
  return composing;
}

// Calls back after each change of the text with its kind (InputEvent.inputType), and when a word is composed.
export function onInput(callback) {
  text.addEventListener("input", (event) => callback(event.inputType));
  text.addEventListener("compositionstart", () => {
    composing = true;
    callback("insertCompositionText");
  });
  text.addEventListener("compositionend", () => {
    composing = false;
    callback("insertFromComposition");
  });
}

// Puts another text in the place of the present one, so that the browser's Undo brings that back.
export function put(value) {
  const focused = document.activeElement;
  text.focus();
  text.select();
  if (!document.execCommand?.(value ? "insertText" : "delete", false, value)) text.value = value;
  focused.focus();
}

// Measures the text as the server does, in Unicode code points, and shows the number beside the limit.
export function measure(limit) {
  const characters = Array.from(text.value).length;
  length.textContent = `${characters.toLocaleString("en")} / ${limit.toLocaleString("en")}`;
  text.setAttribute("aria-invalid", characters > limit);
  if (!CSS.supports("field-sizing", "content")) {
    text.style.height = "auto";
    text.style.height = `${text.scrollHeight}px`;
  }
  return characters;
}
