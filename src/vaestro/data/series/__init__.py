"""Series: from long tables, lists of arrays and lists in cells; cut into windows; and back."""
