"""What a run came to: `summary` and `course` make figures of a `Result`, `terminal`, `document` and `page` show them. Pure."""
