"""Published weights of other implementations, converted to our parameter tree and back.

One table per source says which of its layers is which of ours; `layout` does the rest, and
`sources.read` finds the reader of whatever a user has.
"""
