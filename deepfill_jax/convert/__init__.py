"""Published weights of other implementations, converted to our parameter tree.

One table per source says which of its layers is which of ours; `layout` does the rest.
"""
