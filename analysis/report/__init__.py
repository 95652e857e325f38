"""One static page of results that opens from a file: tables, figures, and a viewer of kept tokens."""
