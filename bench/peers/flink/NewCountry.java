package flink;

import static org.apache.flink.table.annotation.ArgumentTrait.PASS_COLUMNS_THROUGH;
import static org.apache.flink.table.annotation.ArgumentTrait.SET_SEMANTIC_TABLE;

import login.Recent;
import org.apache.flink.table.annotation.ArgumentHint;
import org.apache.flink.table.annotation.DataTypeHint;
import org.apache.flink.table.annotation.StateHint;
import org.apache.flink.table.functions.ProcessTableFunction;
import org.apache.flink.types.Row;

/** By user and country: whether a login is new. Keeps what {@link Recent} keeps. */
@DataTypeHint("ROW<fresh BOOLEAN>")
public final class NewCountry extends ProcessTableFunction<Row> {
  /** The state of one user and country. */
  public static final class Seen {
    public long[] times = new long[0];
  }

  public void eval(
      @StateHint(name = "seen") Seen seen,
      @ArgumentHint(value = {SET_SEMANTIC_TABLE, PASS_COLUMNS_THROUGH}, name = "login") Row login) {
    long t = Recent.micros((String) login.getField("timestamp"));
    boolean fresh = Recent.isNew(seen.times, t);
    seen.times = Recent.with(seen.times, t);
    collect(Row.of(fresh));
  }
}
