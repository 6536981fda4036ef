// The API key, if the service demands one: the form that asks for it, and the header that carries it.

const NAME = "tolk.key";
// The key is in the session storage, which the pages of a tab share, which survives a reload, and which ends with the
// tab. The local storage would leave the key to the next user of the browser. A cookie would be sent with requests of
// other sites.
const REFUSALS = ["UNAUTHENTICATED", "FORBIDDEN"];

const element = (id) => document.getElementById(id);
const [form, label, field, kept, forget] = ["key-form", "key-label", "key", "key-kept", "key-forget"].map(element);

let unkept = null; // the key, if the browser does not allow storage

export function authorization() {
  const key = read();
  return key === null ? {} : { Authorization: `Bearer ${key}` };
}

// Shows the form if an error demands a key, or another one; otherwise hides it. Returns whether it is shown.
export function demand(error) {
  form.hidden = !REFUSALS.includes(error?.code);
  label.textContent = read() === null ? "API key" : "Another API key";
  return !form.hidden;
}

// Calls back when the key is replaced or removed.
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

addEventListener("pageshow", tell); // also when the page comes back from the history: the key may have changed
