"""From scores to ranks: within one unit, and for queries whose rows lie in several units."""
