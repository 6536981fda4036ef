// The API key, where the service wants one: the form that asks for it, and the header that carries it.

const NAME = "tolk.key";
// In the session storage, which the pages of a tab share, which a reload keeps, and which ends with the tab. The local
// storage would leave the key to whoever sits there next; a cookie would go along with what other sites send here.
const REFUSALS = ["UNAUTHENTICATED", "FORBIDDEN"];

const element = (id) => document.getElementById(id);
const [form, label, field, kept, forget] = ["key-form", "key-label", "key", "key-kept", "key-forget"].map(element);

let unkept = null; // the key, where the browser may keep nothing

export function authorization() {
  const key = read();
  return key === null ? {} : { Authorization: `Bearer ${key}` };
}

// Shows the form where an error is for want of a key, or of a better one, and returns whether it is; else hides it.
export function demand(error) {
  form.hidden = !REFUSALS.includes(error?.code);
  label.textContent = read() === null ? "API key" : "Another API key";
  return !form.hidden;
}

// Calls back when there is another key, or none any more.
export function onChange(callback) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    write(field.value.trim());
    field.value = "";
    field.focus();
    callback();
  });
  forget.addEventListener("click", () => {
    write(null);
    callback();
  });
}

function read() {
  try {
    return sessionStorage.getItem(NAME);
  } catch {
    return unkept;
  }
}

function write(key) {
  try {
    if (key === null) sessionStorage.removeItem(NAME);
    else sessionStorage.setItem(NAME, key);
  } catch {
    unkept = key;
  }
  tell();
}

function tell() {
  kept.hidden = read() === null;
}

addEventListener("pageshow", tell); // also of a page that comes back from the history: another may have a key by now
