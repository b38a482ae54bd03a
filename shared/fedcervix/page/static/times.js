// Times in words. All moments are Unix seconds; clocks show UTC, as the command line does.

let offset_s = 0; // of the server's clock from this browser's

export function setNow(now_s) { offset_s = now_s - Date.now() / 1000; }
export const now = () => Date.now() / 1000 + offset_s;

const two = (n) => String(n).padStart(2, "0");

/** 03:12:07, or with the date where it is not today. */
export function clock(at) {
  const d = new Date(at * 1000);
  const time = `${two(d.getUTCHours())}:${two(d.getUTCMinutes())}`;
  const day = `${d.getUTCFullYear()}-${two(d.getUTCMonth() + 1)}-${two(d.getUTCDate())}`;
  const today = new Date(now() * 1000).toISOString().slice(0, 10);
  return day === today ? `${time}:${two(d.getUTCSeconds())}` : `${day} ${time}`;
}

/** 45 s, 3 min 20 s, 2 h 5 min, 3 d 4 h. */
export function span(seconds) {
  const total = Math.max(0, Math.round(seconds));
  if (total < 60) return `${total} s`;
  if (total < 3600) return `${Math.floor(total / 60)} min ${total % 60} s`;
  if (total < 86400) return `${Math.floor(total / 3600)} h ${Math.floor((total % 3600) / 60)} min`;
  return `${Math.floor(total / 86400)} d ${Math.floor((total % 86400) / 3600)} h`;
}

/** 2 h to 3 h, or one of them where they read the same. */
export function range(least, most) {
  const [a, b] = [span(least), span(most)];
  return a === b ? a : `${a} to ${b}`;
}

/** As the command line writes them (`fedcervix.runtime.quantities.size`). */
export function bytes(count) {
  if (count >= 2 ** 29) return `${(count / 2 ** 30).toFixed(1)} GiB`;
  return count >= 2 ** 20 ? `${Math.round(count / 2 ** 20)} MiB` : `${Math.round(count / 2 ** 10)} KiB`;
}

export const number = (value, digits = 4) => (value === null || value === undefined ? "" : String(Number(value.toPrecision(digits))));

/** Write all <span data-since> and <span data-until> anew: each second, without drawing anything else. */
export function tick() {
  for (const element of document.querySelectorAll("[data-since]")) {
    element.textContent = span(now() - Number(element.getAttribute("data-since")));
  }
  for (const element of document.querySelectorAll("[data-until]")) {
    const left = Number(element.getAttribute("data-until")) - now();
    element.textContent = left > 0 ? `in ${span(left)}` : "now";
  }
}
