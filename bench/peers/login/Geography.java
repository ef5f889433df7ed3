package login;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.function.BiFunction;

/**
 * Where an address lies: the longest prefix of it in a file {@code ip_prefix,country,city,...}; of equals the last row.
 *
 * <p>A prefix is held as the beginning of the addresses' text, so a look-up is a few look-ups in a map. Prefixes that end within a byte are
 * spelled out. Addresses are taken as the traffic writes them: no leading zeros, nothing shortened within a prefix.
 */
public final class Geography<P> {
  private record Row<P>(int bits, P place) {}

  private final Map<String, P> places = new HashMap<>();

  /** {@code place} makes what is found, of a country and a city; either may be null. */
  public Geography(Path csv, BiFunction<String, String, P> place) throws IOException {
    Map<String, Row<P>> rows = new HashMap<>();
    Files.lines(csv).skip(1).map(line -> line.split(",", -1)).forEach(fields -> {
      P found = place.apply(fields[1].isEmpty() ? null : fields[1], fields[2].isEmpty() ? null : fields[2]);
      add(rows, fields[0], found);
    });
    rows.forEach((prefix, row) -> places.put(prefix, row.place));
  }

  private static <P> void add(Map<String, Row<P>> rows, String prefix, P place) {
    int slash = prefix.indexOf('/');
    String text = (slash < 0 ? prefix : prefix.substring(0, slash)).replaceFirst("(\\.|::)$", "");
    if (text.contains(":")) {
      rows.merge(text, new Row<>(slash < 0 ? 128 : bits(prefix, slash), place), Geography::longer);
      return;
    }
    String[] parts = text.split("\\.");
    int bits = slash < 0 ? 8 * parts.length : bits(prefix, slash), whole = (bits + 7) / 8, open = 8 * whole - bits;
    String before = String.join(".", java.util.Arrays.copyOf(parts, whole - 1));
    int first = Integer.parseInt(parts[whole - 1]) >> open << open;
    for (int last = first; last < first + (1 << open); last++) {
      rows.merge((before.isEmpty() ? "" : before + ".") + last, new Row<>(bits, place), Geography::longer);
    }
  }

  private static int bits(String prefix, int slash) {
    return Integer.parseInt(prefix.substring(slash + 1));
  }

  private static <P> Row<P> longer(Row<P> old, Row<P> added) {
    return added.bits >= old.bits ? added : old;
  }

  /** Null when no prefix matches. */
  public P find(String address) {
    for (int end = address.length(); end > 0; end = Math.max(address.lastIndexOf('.', end - 1), address.lastIndexOf(':', end - 1))) {
      P found = places.get(address.substring(0, end));
      if (found != null) return found;
    }
    return null;
  }
}
