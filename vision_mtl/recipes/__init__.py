"""What several stages share: building, fitting, scoring, reporting."""
