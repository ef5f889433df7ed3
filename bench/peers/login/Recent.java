package login;

import java.time.Instant;
import java.util.Arrays;

/**
 * The logins of one user from one country, as far as they matter to the next: those of the last second, and the newest before. Times are
 * microseconds since 1970; a list is in no order. It stays short, so it is one small value of a store.
 */
public final class Recent {
  private static final long SECOND = 1_000_000, WEEK = 7L * 24 * 3600 * SECOND;

  private Recent() {}

  public static long micros(String timestamp) {
    Instant at = Instant.parse(timestamp);
    return at.getEpochSecond() * SECOND + at.getNano() / 1000;
  }

  /** Whether none of these is in [t - 7 days, t - 1 s]. */
  public static boolean isNew(long[] seen, long t) {
    for (long at : seen) if (at >= t - WEEK && at <= t - SECOND) return false;
    return true;
  }

  /** The list with t. */
  public static long[] with(long[] seen, long t) {
    long newest = t, before = Long.MIN_VALUE;
    for (long at : seen) newest = Math.max(newest, at);
    long[] kept = new long[seen.length + 2];
    int count = 0;
    for (int i = 0; i <= seen.length; i++) {
      long at = i < seen.length ? seen[i] : t;
      if (at > newest - SECOND) kept[count++] = at;
      else before = Math.max(before, at);
    }
    if (before != Long.MIN_VALUE) kept[count++] = before;
    return Arrays.copyOf(kept, count);
  }
}
