"""Jobs: their records, their queue, their execution, their logs."""
