package flink;

import java.nio.file.Path;
import login.Geography;
import org.apache.flink.table.annotation.DataTypeHint;
import org.apache.flink.table.annotation.FunctionHint;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.functions.FunctionContext;
import org.apache.flink.table.functions.TableFunction;

/** Country and city of an address, by the file GEO_CSV: always one row, of nulls where nothing is known. */
@FunctionHint(output = @DataTypeHint(value = "ROW<country STRING, city STRING>", bridgedTo = RowData.class))
public final class Place extends TableFunction<RowData> {
  private static final RowData NOWHERE = GenericRowData.of(null, null);
  private transient Geography<RowData> geography;

  @Override public void open(FunctionContext context) throws Exception {
    geography = new Geography<>(Path.of(System.getenv("GEO_CSV")),
        (country, city) -> GenericRowData.of(StringData.fromString(country), StringData.fromString(city)));
  }

  public void eval(String ip) {
    RowData found = geography.find(ip);
    collect(found == null ? NOWHERE : found);
  }
}
