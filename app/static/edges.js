// What sticks to the edges of the window never hides the focus.

const [top, ...bottoms] = document.querySelectorAll("#trouble, .foot");
const ROOM = 16; // pixels between the focus and what sticks

const observer = new ResizeObserver(() => {
  const { style } = document.documentElement;
  style.scrollPaddingTop = `${top.offsetHeight + ROOM}px`;
  style.scrollPaddingBottom = `${Math.max(...bottoms.map((each) => each.offsetHeight)) + ROOM}px`;
});

export function keepClear() {
  for (const each of [top, ...bottoms]) observer.observe(each);
}
