"""The imperative shell: the loop, its threads, the clock, activities, and the client's verbs."""
