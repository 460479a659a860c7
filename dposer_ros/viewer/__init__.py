"""The local web page of `dposer view`: what the messages say, from a bag or live, in 3D."""
