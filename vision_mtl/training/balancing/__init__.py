"""How several objectives' losses become one gradient on the parameters that they share: one method a file."""
