// Asks the API which language a text is in.

import { ask } from "./graphql.js";

const DOCUMENT = "query Detect($texts: [String!]!) { detect(texts: $texts) { language confidence served } }";
const LOOKED_AT = 2_000; // characters; the service looks at no more
// A shorter or less certain text stays in the language before, so that the page does not jump while somebody types.
const SHORT = 20;
const SURE = 0.8;

// Returns the language of a text, which is null if it has no letters, and whether it can be translated. If the text does
// not tell, it is in the language `before`, unless that is null. Throws what `ask` throws.
export async function detect(text, before, signal) {
  const characters = Array.from(text.trim()).slice(0, LOOKED_AT);
  const { detect: found } = await ask(DOCUMENT, { texts: [characters.join("")] }, signal);
  const [{ language, confidence, served }] = found;
  const tells = language && characters.length >= SHORT && confidence >= SURE;
  return before && !tells ? { language: before, served: true } : { language, served: served || !language };
}
