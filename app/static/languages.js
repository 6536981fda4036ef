// The languages that the page offers: their names, which pairs there are, and which were chosen last.

import { ask } from "./graphql.js";

const LANGUAGES = "{ languages { source target available } }";
const PATIENCE = 10_000; // milliseconds that an answer with the languages may take
const PAIR = "tolk.pair"; // in the local storage
const names = new Intl.DisplayNames("en", { type: "language", fallback: "code" });

export const DETECT = "detect"; // instead of a language that the texts are in

// The pairs of languages, each with whether workers take it: what the page came with, or what the API says now.
export const offered = JSON.parse(document.body.dataset.pairs);

// Asks the API for the pairs, for models come and go while the page stays open. Throws what `ask` throws.
export async function refresh() {
  const pairs = await ask(LANGUAGES, {}, { patience: PATIENCE }, ({ languages }) =>
    languages.map((each) => [each.source, each.target, each.available]),
  );
  offered.splice(0, Infinity, ...pairs);
}

// Returns the pair if it is offered.
export function find(source, target) {
  return offered.find((pair) => pair[0] === source && pair[1] === target);
}

export function nameOf(language) {
  try {
    return names.of(language);
  } catch {
    return language; // not a language code, but a name from models.toml
  }
}

export function remember(source, target) {
  try {
    localStorage.setItem(PAIR, JSON.stringify([source, target]));
  } catch {
    // The browser does not allow storage. The first pair will be shown next time.
  }
}

// Returns the pair that was remembered, if it is still offered, otherwise the first one.
export function remembered() {
  try {
    const [source, target] = JSON.parse(localStorage.getItem(PAIR));
    if (source === DETECT || find(source, target)) return [source, target];
  } catch {
    // Nothing is stored, or nothing valid.
  }
  return offered[0];
}

// Names the languages in the notes on what models are good for.
export function nameNotes() {
  for (const { dataset, firstChild } of document.querySelectorAll("[data-note]")) {
    const directions = dataset.languages.matchAll(/(\S+) (\S+)/g);
    const named = Array.from(directions, ([, from, to]) => `${nameOf(from)} → ${nameOf(to)}`);
    firstChild.data = `${named.join(", ")}: ${dataset.note}`;
  }
}
