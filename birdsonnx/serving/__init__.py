"""A model behind HTTP: photos of all requests, gathered into runs; the page that people drop a photo on."""
