"""Does a method keep what contributes? Contributions measured by leaving tokens out, against the method's order."""
