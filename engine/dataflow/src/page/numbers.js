// Numbers for people, and what can be said of several snapshots: rates, series, quantiles.

const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const none = "–";
export const count = n => n == null ? none : Math.abs(n) < 100_000 ? whole.format(Math.round(n)) : short.format(n);
export const rate = n => n == null ? none : n > 0 && n < 10 ? n.toFixed(1) : count(n);
export const percent = share => share == null ? none : `${share > 0 && share < 0.1 ? (share * 100).toFixed(1) : Math.round(share * 100)} %`;

export function bytes(n) {
  if (n == null) return none;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (n >= 1024 && at < units.length - 1) { n /= 1024; at += 1; }
  return `${at === 0 || n >= 100 ? Math.round(n) : n.toFixed(1)} ${units[at]}`;
}

export function duration(us) {
  if (us == null) return none;
  const ms = us / 1000;
  if (ms < 1) return `${Math.round(us)} µs`;
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const s = ms / 1000;
  if (s < 100) return `${s.toFixed(1)} s`;
  if (s < 6000) return `${Math.round(s / 60)} min`;
  return s < 172_800 ? `${(s / 3600).toFixed(1)} h` : `${Math.round(s / 86_400)} d`;
}

/** Event times and clocks are UTC; so is everything the page shows. */
export const millis = time => time == null ? null : Date.parse(time);
export const time = text => text == null ? none : text.slice(11, 19);
export const dateTime = text => text == null ? none : text.slice(0, 19).replace("T", " ");

/** Snapshots of the last minutes, one generation's. */
export class History {
  constructor(keep) { this.keep = keep; this.list = []; }

  add(snapshot) {
    if (this.last && this.last.generation !== snapshot.generation) this.list = [];
    this.list.push(snapshot);
    if (this.list.length > this.keep) this.list.shift();
  }

  get last() { return this.list.at(-1); }

  /** The newest snapshot that is at least `ms` older than the last one, or the oldest. */
  before(ms) {
    const until = this.last.monotonic_ms - ms;
    return this.list.findLast(s => s.monotonic_ms <= until) ?? this.list[0];
  }

  /** How much `of(snapshot)` grew a second, lately. */
  rate(of, ms = 3000) { return this.list.length < 2 ? null : growth(of, this.before(ms), this.last); }

  /** The same from one snapshot to the next, through all that is kept. */
  rates(of) { return this.list.slice(1).map((s, at) => growth(of, this.list[at], s) ?? 0); }

  /** A share of time: microseconds or nanoseconds of `of` by those of `whole`, lately. */
  share(of, whole, ms = 3000) {
    if (this.list.length < 2) return null;
    const from = this.before(ms), all = whole(this.last) - whole(from);
    return all > 0 ? Math.min(1, Math.max(0, (of(this.last) - of(from)) / all)) : null;
  }

  /** What a histogram gained in the last minute. */
  recent(of, ms = 60_000) {
    const now = of(this.last);
    if (!now) return null;
    const then = this.list.length > 1 ? of(this.before(ms)) : null;
    return now.counts.map((n, at) => n - (then?.counts[at] ?? 0));
  }
}

function growth(of, from, to) {
  const seconds = (to.monotonic_ms - from.monotonic_ms) / 1000;
  const before = of(from), after = of(to);
  return seconds > 0 && before != null && after != null ? Math.max(0, after - before) / seconds : null;
}

/** The quantile of bucket counts, within its bucket as if evenly spread; the last bucket's is its lower bound. */
export function quantile(counts, bounds, q) {
  const all = counts?.reduce((a, b) => a + b, 0) ?? 0;
  if (all === 0) return null;
  let left = q * all;
  for (let at = 0; at < counts.length; at += 1) {
    if (left <= counts[at] && counts[at] > 0) {
      const low = at === 0 ? 0 : bounds[at - 1];
      return at === bounds.length ? low : low + (bounds[at] - low) * left / counts[at];
    }
    left -= counts[at];
  }
  return bounds.at(-1);
}

export const sum = list => list.reduce((a, b) => a + b, 0);
