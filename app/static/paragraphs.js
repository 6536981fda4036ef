// Translates a text by its paragraphs, which line breaks divide. A sentence never extends over one, so that a paragraph
// is translated alone as it would be in its text, and only those are sent that are new.

import { ask, RequestError } from "./graphql.js";

const MUTATION = `
mutation Translate($input: TranslateInput!) {
  translate(input: $input) {
    requestId
    model
    version
    via
    translations { text error { code message } sentences { text score flags } }
  }
}`;
const TIMEOUT = 10; // seconds for a short request
const GRACE = 5; // more seconds, in which the service would report the timeout
const CHARACTERS_PER_SECOND = 200; // a longer request has more time
const KEPT = 2_000; // paragraphs, in the memory of the page alone

const known = new Map(); // the translations of paragraphs; those that were used last are at the end
const makers = new Map(); // the models and versions that translate now, by languages

// Returns the translations of a text's paragraphs ({ text, sentences, via }) in order. `pair`: the languages
// ({ source, target }). `limits`: how many `texts` a request may hold, and how many seconds (`timeout`) it may take.
// Throws what `ask` throws; what was translated by then stays known.
export async function translate(text, pair, limits, signal) {
  const paragraphs = text.split("\n");
  const find = (paragraph) => known.get(key(pair, paragraph));
  const send = async (isWanted) => {
    const wanted = [...new Set(paragraphs)].filter((each) => each.trim() && isWanted(each));
    for (let first = 0; first < wanted.length; first += limits.texts) {
      const failures = await request(wanted.slice(first, first + limits.texts), pair, limits, signal);
      if (failures.length) throw failure(failures[0], paragraphs);
    }
  };
  await send((paragraph) => !find(paragraph));
  await send((paragraph) => find(paragraph).maker !== makers.get(name(pair))); // the models have changed since
  const translations = paragraphs.map((each) => (each.trim() ? use(key(pair, each)) : { text: each, sentences: [], via: [] }));
  for (const oldest of [...known.keys()].slice(0, -KEPT)) known.delete(oldest);
  return translations;
}

function name({ source, target }) {
  return `${source}\n${target}`;
}

function key(pair, paragraph) {
  return `${name(pair)}\n${paragraph}`;
}

function use(key) {
  const translation = known.get(key);
  known.delete(key);
  known.set(key, translation);
  return translation;
}

// Translates texts, and returns those that failed ({ text, error }).
async function request(texts, pair, limits, signal) {
  const characters = texts.reduce((sum, text) => sum + text.length, 0);
  const timeout = Math.min(limits.timeout, TIMEOUT + characters / CHARACTERS_PER_SECOND);
  const input = { texts, ...pair, timeout };
  const options = { patience: (timeout + GRACE) * 1000, signal };
  return ask(MUTATION, { input }, options, ({ translate: { requestId, model, version, via, translations } }) => {
    const results = texts.map((_, index) => readTranslation(translations[index]));
    const maker = [model, version, ...via].join("\n");
    makers.set(name(pair), maker);
    return results.flatMap(({ text, sentences, error }, index) => {
      if (error) return [{ text: texts[index], error: { ...error, requestId } }];
      known.set(key(pair, texts[index]), { text, sentences, via, maker });
      return [];
    });
  });
}

// Throws TypeError if it is no translation of a text.
function readTranslation({ text, sentences, error }) {
  if (error) return { error };
  const isTranslation =
    typeof text === "string" && sentences.every((each) => typeof each.text === "string" && Array.isArray(each.flags));
  if (!isTranslation) throw new TypeError("A translation has no text, or its sentences have none.");
  return { text, sentences };
}

function failure({ text, error }, paragraphs) {
  const where = paragraphs.length > 1 ? `Line ${paragraphs.indexOf(text) + 1}: ` : "";
  return new RequestError(where + error.message, error);
}
