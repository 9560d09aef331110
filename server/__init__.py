"""The coordinator: finds the sites, drives rounds over a Flower ``Grid``, keeps every wait bounded."""
