"""Many runs of several arms, over seeds and shares of the labels, and what they say together."""
