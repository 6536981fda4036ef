// Asks the API which language a text is in.

import { ask } from "./graphql.js";

const DOCUMENT = "query Detect($texts: [String!]!) { detect(texts: $texts) { language confidence served } }";
const LOOKED_AT = 2_000; // characters; the service looks at no more
// A shorter or less certain text stays in the language before, so that the page does not jump while somebody types.
const SHORT = 20;
const SURE = 0.8;

const PATIENCE = 10_000; // milliseconds that an answer may take

let told = ""; // the text that told its language last

// Returns the language of a text, which is null if it has no letters, and whether it can be translated. If the text does
// not tell, it is in the language `before`, unless that is null. Throws what `ask` throws.
export async function detect(text, before, signal) {
  const characters = Array.from(text.trim().slice(0, 2 * LOOKED_AT)).slice(0, LOOKED_AT);
  const sample = characters.join("");
  // Who types on does not change the language of the text, unless it becomes another text.
  if (before && told && sample.startsWith(told) && sample.length < 2 * told.length) {
    return { language: before, served: true };
  }
  const { language, confidence, served } = await ask(DOCUMENT, { texts: [sample] }, { patience: PATIENCE, signal }, read);
  const tells = language && characters.length >= SHORT && confidence >= SURE;
  told = tells && served ? sample : "";
  return before && !tells ? { language: before, served: true } : { language, served: served || !language };
}

function read({ detect: [{ language, confidence, served }] }) {
  if (typeof language !== "string" && language !== null) throw new TypeError("A detection has no language.");
  return { language, confidence, served };
}
