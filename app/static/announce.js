// What screen readers announce: the words of live regions.

let turn = 0; // how often the page was to say something

// Writes words into an element. If it has them already, they are not announced again.
export function write(where, words) {
  if (where.textContent !== words) where.textContent = words;
}

// Says on the page how something went, after a pause in milliseconds in which nothing else is said.
export function say(words, pause = 0) {
  const mine = (turn += 1);
  const utter = () => mine === turn && write(document.getElementById("outcome"), words);
  if (pause > 0) setTimeout(utter, pause);
  else utter();
}
