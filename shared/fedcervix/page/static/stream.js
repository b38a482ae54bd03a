// The page's data: one object, kept up to date by server-sent events, shared by all tabs of a browser.
//
// A browser opens at most six connections to a server, and an event stream holds one. So only one tab has a stream: the
// one that holds a lock of that name. It passes every event on to the others. When it is closed, the next tab gets the
// lock. Where a browser has no locks (a page without TLS at a network address), each tab has a stream of its own.

const QUIET_MS = 12000; // the server beats every 5 s: two beats that did not come
const NAME = "fedcervix-stream";

/** Apply a merge patch (RFC 7396) and return the new value; what the patch does not name stays the same object. */
export function merged(value, patch) {
  if (patch === null || typeof patch !== "object" || Array.isArray(patch)) return patch;
  const result = value !== null && typeof value === "object" && !Array.isArray(value) ? { ...value } : {};
  for (const [name, change] of Object.entries(patch)) {
    if (change === null) delete result[name];
    else result[name] = merged(result[name], change);
  }
  return result;
}

/**
 * Call onView(view, changed) with everything that is known, each time that something changes; `changed` is the set of
 * names of the parts that did. Call onLink(words) when the server is not heard: "" when it is heard again.
 */
export function follow(onView, onLink) {
  let view = null;
  let heard = Date.now();
  let link = "";
  const channel = "BroadcastChannel" in window ? new BroadcastChannel(NAME) : null;
  let leads = false;

  function say(words) {
    if (words !== link) onLink((link = words));
  }
  function take(kind, value) {
    heard = Date.now();
    say("");
    if (kind === "beat") return;
    if (kind === "patch" && view === null) return; // the whole is on its way
    view = kind === "whole" ? value : merged(view, value);
    onView(view, new Set(Object.keys(value)));
  }
  function open() {
    leads = true;
    const source = new EventSource("/events");
    for (const kind of ["whole", "patch", "beat"]) {
      source.addEventListener(kind, (event) => {
        const value = JSON.parse(event.data);
        take(kind, value);
        if (channel) channel.postMessage({ kind, value });
      });
    }
    source.onerror = () => {
      if (source.readyState !== EventSource.CLOSED) return; // the browser tries again by itself
      // It was refused: the cookie is not known any more, or the server is starting. Ask again, and not too often.
      say("refused");
      setTimeout(() => { source.close(); open(); }, 5000);
    };
  }
  if (channel) {
    channel.onmessage = ({ data }) => {
      if (data.kind === "ask") {
        if (leads && view) channel.postMessage({ kind: "whole", value: view });
      } else if (!leads) take(data.kind, data.value);
    };
  }
  if (channel && navigator.locks) {
    navigator.locks.request(NAME, () => { open(); return new Promise(() => {}); });
    channel.postMessage({ kind: "ask" });
  } else {
    open();
  }
  setInterval(() => {
    if (Date.now() - heard > QUIET_MS) say(link === "refused" ? link : "quiet");
  }, 1000);
}
