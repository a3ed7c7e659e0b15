output "dashboard_url" {
  description = "The dashboard, to open in a browser where you are logged in to Datadog."
  value       = "https://${contains(["datadoghq.com", "datadoghq.eu", "ddog-gov.com"], var.ddg_site) ? "app." : ""}${var.ddg_site}${datadog_dashboard_json.stats.url}"
}

output "monitor_id" {
  description = "Number of the anomaly monitor, which Datadog shows at /monitors/NUMBER."
  value       = datadog_monitor.processed_data.id
}
