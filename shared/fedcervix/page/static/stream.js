// The page's data: one object, kept up to date by server-sent events, shared by all tabs of a browser.
//
// A browser opens at most six connections to a server, and an event stream holds one. So only one tab has a stream: the
// one that holds a lock of that name. It passes every event on to the others. When it is closed, the next tab gets the
// lock. Where a browser has no locks (a page without TLS at a network address), each tab has a stream of its own.

const QUIET_MS = 12000; // the server beats every 5 s: two beats that did not come
const RETRY_MS = 6000; // from one try to open a stream that is not heard to the next
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

/** Return why a stream was refused: "refused", "full", or "quiet" where the server, or what stands before it, fails. */
async function reason() {
  try {
    const answer = await fetch("/events", { method: "HEAD", redirect: "manual" });
    if (answer.type === "opaqueredirect") return "refused"; // a proxy sends to its sign-in page
    return { 401: "refused", 403: "refused", 503: "full" }[answer.status] || "quiet";
  } catch {
    return "quiet";
  }
}

/**
 * Call onView(view, changed) with everything that is known, each time that something changes; `changed` is the set of
 * names of the parts that did. Call onLink(why) when the server is not heard (see `reason`): "" when it is heard again.
 */
export function follow(onView, onLink) {
  let view = null;
  let heard = Date.now();
  let link = "";
  const channel = "BroadcastChannel" in window ? new BroadcastChannel(NAME) : null;
  let leads = false;

  let source = null;
  let opened = 0;

  function say(why) {
    if (why !== link) onLink((link = why));
  }
  function take(kind, value) {
    if (kind === "link") { say(value); return; }
    heard = Date.now();
    say("");
    if (kind === "beat") return;
    if (kind === "patch" && view === null) return; // the whole is on its way
    view = kind === "whole" ? value : merged(view, value);
    onView(view, new Set(Object.keys(value)));
  }
  function pass(kind, value) {
    take(kind, value);
    if (channel) channel.postMessage({ kind, value });
  }
  function open() {
    if (source) source.close();
    leads = true;
    opened = Date.now();
    source = new EventSource("/events");
    const own = source;
    for (const kind of ["whole", "patch", "beat"]) {
      source.addEventListener(kind, (event) => pass(kind, JSON.parse(event.data)));
    }
    source.onerror = async () => {
      if (own.readyState !== EventSource.CLOSED) return; // the browser tries again by itself
      const why = await reason();
      if (own === source) pass("link", why); // `open` tries again
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
    const quiet = Date.now() - heard > QUIET_MS;
    if (quiet && !link) say("quiet");
    // A stream can be dead without a word: a tunnel or a network that is gone. The browser would wait for ever.
    if (leads && (quiet || link) && Date.now() - opened > RETRY_MS) open();
  }, 1000);
}
