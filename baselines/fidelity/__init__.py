"""Are the methods the authors' algorithms? Golden vectors of the official implementations, checked one by one."""
