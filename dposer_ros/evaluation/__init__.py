"""What `dposer evaluate-bag` does with a fitted bag: figures, comparisons, a bag, a page."""
