//! Objects, names, selectors, quantities, patches and codecs of the Kubernetes API.
