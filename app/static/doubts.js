// Marks the sentences of a translation that a reader should check, and says why.

// Mean log-probability per token, of each model, below which a sentence deserves a second look (docs/page.md).
const LOW_SCORE = -0.8;
const UNSURE = "The model was unsure of this sentence. It may be wrong.";
const FLAGS = new Map([
  ["REPETITION", "The model began to repeat itself here. Something may be missing, or said twice."],
  ["UNKNOWN_TOKENS", "The sentence has characters that the model does not know. They may be missing."],
  ["SPLIT", "The sentence was translated in parts: it was too long, or would have lost a placeholder."],
  ["TRUNCATED", "The translation reached its length limit. The end may be missing."],
  ["NUMBER_MISMATCH", "A number of the sentence is missing or is not the same."],
  ["SOURCE_KEPT", "The sentence was not translated, because a placeholder would have been lost."],
]);

// Returns the nodes that show translated paragraphs ({ text, sentences, via }), one on each line. The sentences occur in
// their paragraph in order.
export function annotate(paragraphs) {
  const nodes = [];
  paragraphs.forEach((paragraph, index) => {
    let written = 0;
    let cursor = 0;
    if (index > 0) nodes.push("\n");
    for (const sentence of paragraph.sentences) {
      const start = paragraph.text.indexOf(sentence.text, cursor);
      if (start < 0 || !sentence.text) continue;
      cursor = start + sentence.text.length;
      const doubts = sentence.flags.map((flag) => FLAGS.get(flag) ?? UNSURE);
      if (sentence.score < LOW_SCORE * (paragraph.via.length + 1)) doubts.push(UNSURE);
      if (doubts.length === 0) continue;
      nodes.push(paragraph.text.slice(written, start), ...doubtful(sentence.text, doubts, `doubt-${nodes.length}`));
      written = cursor;
    }
    nodes.push(paragraph.text.slice(written));
  });
  return nodes;
}

function doubtful(sentence, doubts, id) {
  const marked = document.createElement("mark");
  marked.textContent = sentence;
  marked.tabIndex = 0;
  marked.setAttribute("aria-describedby", id);
  const why = document.createElement("span");
  why.id = id;
  why.setAttribute("role", "tooltip");
  why.lang = "en";
  why.dir = "ltr";
  why.textContent = [...new Set(doubts)].join(" ");
  return [marked, why];
}

// Escape hides the reasons until somebody points at a sentence, or moves to one, again.
export function hushOnEscape(output) {
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") output.classList.add("hushed");
  });
  for (const kind of ["pointerover", "focusin"]) {
    output.addEventListener(kind, () => output.classList.remove("hushed"));
  }
}
