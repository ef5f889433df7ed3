-- Each login enriched.
EXECUTE STATEMENT SET BEGIN
INSERT INTO enriched SELECT * FROM enriched_logins;
END;
