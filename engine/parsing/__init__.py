"""How the files that users write are read and checked, all problems at once, each with its line.

`yamlfile` reads a document through `yamlnodes`; `checks`, `payloads` and `cycles` judge what is in
it. Knows no file by name: that do `engine.dag` and `engine.config`.
"""
