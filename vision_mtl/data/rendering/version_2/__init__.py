"""The drawings of version 2, for runs that were made with them: colours, background and light are random."""
