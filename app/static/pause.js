// The button by which the reader stops a page that updates itself, and has it go on.

// Has `changed` called whenever the reader has pressed it. Returns a function that tells whether the page is paused.
export function pausable(changed) {
  const [button, rhythm] = ["pause", "rhythm"].map((id) => document.getElementById(id));
  const usual = rhythm.textContent;
  let paused = false;
  button.addEventListener("click", () => {
    paused = !paused;
    button.textContent = paused ? "Go on" : "Pause";
    rhythm.textContent = paused ? "The page does not update." : usual;
    changed();
  });
  return () => paused;
}
